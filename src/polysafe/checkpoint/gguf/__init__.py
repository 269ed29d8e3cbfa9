"""GGUF files, the format of llama.cpp, made into ordinary checkpoint folders."""
