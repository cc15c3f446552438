"""One family of errors: each says in one sentence what is wrong and what to do about it."""


class CourseError(Exception):
    """The base of the course's own errors; the message is one sentence with its remedy."""
