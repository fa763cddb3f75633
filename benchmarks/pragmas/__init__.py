"""The effect of ``temp_store`` and ``mmap_size`` on reads."""
