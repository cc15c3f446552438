"""The course's task: a question about tables goes in, SQL comes out, judged by running it (notebook 00)."""
