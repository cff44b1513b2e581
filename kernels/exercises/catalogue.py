"""Every exercise, in the order of difficulty."""

from __future__ import annotations

from kernels.exercises import first_steps, layers, shared_memory
from kernels.exercises.exercise import Exercise, ExerciseError

EXERCISES = (*first_steps.EXERCISES, *shared_memory.EXERCISES, *layers.EXERCISES)


def find(text: str) -> Exercise:
    """Return the exercise of a number or a name.

    Raises
    ------
    ExerciseError
        There is none; the message lists those there are.
    """
    for exercise in EXERCISES:
        if text in (str(exercise.number), f"{exercise.number:02}", exercise.name):
            return exercise
    known = ", ".join(f"{exercise.number} {exercise.name}" for exercise in EXERCISES)
    raise ExerciseError(f"no exercise {text!r}; there are {known}")
