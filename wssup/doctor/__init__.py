"""Says what caps the number of connections here: facts (collect.py) and a plan (plan.py) go through
tables of pure checks (checks/) and come out as findings, with remedies (fixes.py).
"""
