"""Slow, obvious twins: explicit F, G and linear system, CVXPY for the convex program, a plain loop for the network."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
from scipy.optimize import nnls


def dense_f(x, patterns):
    """F = [D_1 X ... D_P X, -D_1 X ... -D_P X], (n, 2 P d)."""
    half = np.hstack([np.diag(patterns[:, i]) @ x for i in range(patterns.shape[1])])
    return np.hstack([half, -half])


def dense_half(problem):
    """F~ = Delta [D_1 X ... D_P X], (m, P d), of a problem, gated or not, paired or not."""
    x, patterns = problem.features, problem.patterns
    half = dense_f(x, patterns)[:, : x.shape[1] * patterns.shape[1]]
    return half[: len(x) // 2] - half[len(x) // 2 :] if problem.paired else half


def dense_pair(problem):
    """F and G of a problem, acting on `stack_columns(u)`; G has no rows where there are no cones."""
    half = dense_half(problem)
    if problem.halves == 1:
        return half, np.zeros((0, half.shape[1]))
    return np.hstack([half, -half]), dense_g(problem.features, problem.patterns)


def dense_system(problem, cone_scale_squared, penalty):
    """I_P (x) (I + tau^2 X'X) + (2/rho) F~'F~, (P d, P d), acting on b gate by gate."""
    x, half = problem.features, dense_half(problem)
    metric = np.eye(x.shape[1]) + cone_scale_squared * x.T @ x
    return np.kron(np.eye(problem.patterns.shape[1]), metric) + 2.0 / penalty * half.T @ half


def dense_g(x, patterns):
    """G = blockdiag((2 D_i - I) X), once for v and once for w, (2 P n, 2 P d)."""
    n, d = x.shape
    gates = patterns.shape[1]
    g = np.zeros((2 * gates * n, 2 * gates * d))
    for half in range(2):
        for i in range(gates):
            k = half * gates + i
            g[k * n : (k + 1) * n, k * d : (k + 1) * d] = (2 * np.diag(patterns[:, i]) - np.eye(n)) @ x
    return g


def stack_columns(u):
    """u (2, d, P) as the vector (v_1, ..., v_P, w_1, ..., w_P), and s (2, n, P) alike; one half if gated."""
    return np.concatenate([u[half, :, i] for half in range(len(u)) for i in range(u.shape[2])])


def unstack_columns(vector, halves, gates):
    """Undo `stack_columns`: (halves, d, P)."""
    return vector.reshape(halves, gates, -1).transpose(0, 2, 1)


def rows_of(s):
    """s (halves, n, P) row by row, (n, halves P): every column of v, then every column of w."""
    return np.hstack(list(s))


def optimum(x, y, patterns, lasso_weight, paired=False):
    """Optimum of eq. (4) by CVXPY and Clarabel, and the point (2, d, P) that attains it."""
    d, gates = x.shape[1], patterns.shape[1]
    v, w = cp.Variable((d, gates)), cp.Variable((d, gates))
    signs = 2 * patterns - 1
    prediction = cp.sum(cp.multiply(patterns, x @ (v - w)), axis=1)
    if paired:
        prediction = prediction[: len(x) // 2] - prediction[len(x) // 2 :]
    norms = cp.sum(cp.norm(v, axis=0)) + cp.sum(cp.norm(w, axis=0))
    objective = 0.5 * cp.sum_squares(prediction - y) + lasso_weight * norms
    cones = [cp.multiply(signs, x @ v) >= 0, cp.multiply(signs, x @ w) >= 0]
    problem = cp.Problem(cp.Minimize(objective), cones)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    assert problem.status == cp.OPTIMAL
    return problem.value, np.stack([v.value, w.value])


def gated_optimum(x, y, patterns, lasso_weight, paired=False):
    """Optimum of the gated-ReLU program by CVXPY and Clarabel, and the point (1, d, P) that attains it."""
    u = cp.Variable((x.shape[1], patterns.shape[1]))
    prediction = cp.sum(cp.multiply(patterns, x @ u), axis=1)
    if paired:
        prediction = prediction[: len(x) // 2] - prediction[len(x) // 2 :]
    objective = 0.5 * cp.sum_squares(prediction - y) + lasso_weight * cp.sum(cp.norm(u, axis=0))
    problem = cp.Problem(cp.Minimize(objective))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-8, tol_gap_rel=1e-8, tol_feas=1e-8)
    assert problem.status == cp.OPTIMAL
    return problem.value, u.value[None]


def zero_weight(x, y, patterns):
    """Longest projection of +-X'D_i y onto {v : E_i X v >= 0}: min over mu >= 0 of ||g + X'E_i mu||, by NNLS.

    With paired rows y is Delta'1 = (1, -1).
    """
    lengths = []
    for pattern in patterns.T:
        g = x.T @ (pattern * y)
        pull = x.T * (2 * pattern - 1)
        lengths += [nnls(pull, -g)[1], nnls(pull, g)[1]]
    return max(lengths)


def network_score(first_weight, first_bias, second_weight, embeddings):
    """Scores of a two-layer ReLU network, one row and one neuron at a time."""
    scores = []
    for row in embeddings:
        total = 0.0
        for weights, bias, out in zip(first_weight, first_bias, second_weight, strict=True):
            total += float(out) * max(0.0, float(np.dot(weights.astype(float), row.astype(float))) + float(bias))
        scores.append(total)
    return np.array(scores)


class DenseBackEnd:
    """The b-system from an explicit matrix, solved anew in every sweep."""

    def __init__(self, problem, cone_scale_squared):
        self.problem, self.cone_scale_squared = problem, cone_scale_squared
        self.matrix, self.observed, self.penalties = None, [], []

    def refactor(self, penalty):
        self.penalties.append(penalty)
        self.matrix = dense_system(self.problem, self.cone_scale_squared, penalty)

    def apply(self, residual):
        return np.linalg.solve(self.matrix, residual.T.ravel()).reshape(residual.T.shape).T

    def observe(self, fitted):
        self.observed.append(float(fitted))


def gated_score(head, embeddings):
    """Scores of a gated network, one row and one neuron at a time."""
    parts = head.first_weight, head.first_bias, head.gate_weight, head.gate_bias, head.second_weight
    scores = []
    for row in embeddings.astype(float):
        total = 0.0
        for weights, bias, gate, threshold, out in zip(*parts, strict=True):
            if np.dot(gate, row) + threshold >= 0:
                total += float(out) * (float(np.dot(weights.astype(float), row)) + float(bias))
        scores.append(total)
    return np.array(scores)
