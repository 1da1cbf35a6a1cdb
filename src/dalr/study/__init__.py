"""Studies: methods × seeds, tuned alike, chosen by validation scores, compared in pairs, written as tables.

A study's folder is its memory. What is finished there is used again if it is what would be made now, and refused
with the difference if it is not; so a study can be stopped at any time, and grown by seeds, methods and tasks. A
search with another number of draws, or a longer list before its last, is another search: its trials are other runs.
"""

from dalr.study.plan import Plan, make_plan
from dalr.study.reading import Study, load_study, shipped_studies, study_description
from dalr.study.run import run_study

__all__ = ["Plan", "Study", "load_study", "make_plan", "run_study", "shipped_studies", "study_description"]
