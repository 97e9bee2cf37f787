"""COALA without an orchestrator: conversations in, a certified preference head out.

The package follows the stages of the pipeline, one word each:

``triplets``  conversations -> (prompt, chosen, rejected), by alternating population
``split``     triplets -> train / validation / test, by hash of a group
``embed``     triplets -> features of both responses, from a frozen language model
``solve``     features -> convex two-layer ReLU head, with a certified gap (Phase I)
``finetune``  head -> head with a tuned last layer (Phase II)
``evaluate``  head -> accuracy, margins and baselines on the test split

Symbols that mean two things in the papers get one name each here:

=================  ===========================================================
``lasso_weight``   beta of eq. (3) and (4): the group-lasso weight of Phase I
``beta``           beta of eq. (7) and (8): the reward scale of Phase II
``gamma``          gamma of eq. (6) and (8): the margin that Phase II asks for
``penalty``        rho of Algorithm 2: the ADMM penalty
``cone_scale``     tau: the factor on the cone rows, 1 in the paper
``first_weight``   Theta_1 of eq. (1), (neurons, d)
``second_weight``  theta_2 of eq. (1), (neurons,)
=================  ===========================================================

Shapes share one alphabet: ``n`` rows, ``d`` features, ``P`` gates, ``m`` neurons.
The package imports neither Prefect nor MLflow.
"""

__version__ = "0.1.0"
