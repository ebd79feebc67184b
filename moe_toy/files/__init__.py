"""Files that appear whole or not at all, locks, progress bars."""
