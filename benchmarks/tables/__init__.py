"""What benchmarks found, as tables in Markdown."""
