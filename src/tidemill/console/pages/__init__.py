"""What the browser shows; runs in the console's process."""
