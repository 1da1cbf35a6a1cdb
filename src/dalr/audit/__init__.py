"""Which captions of my data do not tell their image from others, and which images' captions disagree?

DALR's two problems, weak alignment and images that several captions fit, as numbers for one's own data. A pair gets
a score of match from a dual encoder's two stores, from the grounding heads of a run, or from a linear map that was
fitted on neither of its two images.
"""
