"""Cohorts of synthetic patients with planted structure: the exam that systems are tuned and judged on.

Nothing here comes from a patient, and nothing here is evidence about patients. What each cohort plants is written in
``docs/cohorts.md``, so that somebody can disagree with it.
"""
