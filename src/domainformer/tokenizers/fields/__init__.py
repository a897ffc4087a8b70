"""One tokenizer per kind of field."""
