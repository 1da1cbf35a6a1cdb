"""Readers of image-caption pairs: the shapes in which the field passes them on.

Converting a data set by hand is where captions and images come apart, so the files are read as their owners
publish them. A reader repairs nothing and stops at nothing: one pass reports everything.
"""

from dalr.data.formats.choice import FORMATS, Format, holds_pairs, read_pairs_file

__all__ = ["FORMATS", "Format", "holds_pairs", "read_pairs_file"]
