"""JSON Schemas of answers: what of them is held, and in which form engines draw by them; in every process."""
