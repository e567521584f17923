"""Other tools of compression, run beside ours by `peers_compress.py`."""
