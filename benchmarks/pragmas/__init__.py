"""What ``temp_store`` and ``mmap_size`` make of reads."""
