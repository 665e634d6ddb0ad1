"""Behind the door of sentence-transformers: what its inputs mean, and the folders that point to a checkpoint."""
