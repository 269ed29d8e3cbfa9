"""Benchmarks of ability, one file each; the same questions from a local folder and from the hub."""

from polysafe.data.exams.registry import exam, exam_names, load_questions

__all__ = ["exam", "exam_names", "load_questions"]
