"""Wrong answers, each of which loses marks, and other right ones, which keep them.

By question: what is wrong with it, and the answer: a text, or {"old": "new"} for a change of the solution.
Each hidden cell needs a wrong answer that passes all that is visible.
"""

MUTANTS = {
    "q1": {
        "measures on the scale of the second": {"/ a.norm()": "/ b.norm()"},
        "keeps a small number under the fraction, as if no unit were small": {"/ a.norm()": "/ (a.norm() + 1e-12)"},
    },
}

ACCEPTED = {
    "q1": {
        "sums by hand": """
def distance(a, b):
    return float((b - a).square().sum() / a.square().sum()) ** 0.5
""",
    },
}
