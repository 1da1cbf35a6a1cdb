"""What was measured, as a page to read and as tables to print.

`page` (skeleton and style), `charts` and `tables` know nothing of evaluations: the demo and the study use them too.
"""
