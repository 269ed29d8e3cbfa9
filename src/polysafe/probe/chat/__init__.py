"""Chats in the chat template of a model: a program of its publisher, run within bounds."""
