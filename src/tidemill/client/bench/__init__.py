"""What `tidemill bench` measures and how: pure decisions, and the thin loop around the load generators; the caller's
process."""
