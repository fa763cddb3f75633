"""The operating system: files, locks, forks, mounts."""
