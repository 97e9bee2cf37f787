"""Phase I: the convex program of eq. (4) and the two-layer head that it yields.

``problem``      operators F and G        ``gates``    activation patterns
``linear``       choice of the u-update   ``system``, ``direct``, ``pcg``, ``memory``  its parts
``admm``         Algorithm 2              ``anderson``  acceleration
``certificate``  bounds on the optimum    ``outcome``  state and result
``best``         point to return          ``halt``     deadline, interruption
``network``      neurons, head            ``path``, ``zero``  weights
``rows``, ``kernels``  the pass over X    ``sweeps``   iterate, penalty, precision
``features``     door, standardisation    ``prepare``, ``on_disk``  raw features to program
``gated``        no cones                 ``solution`` head with its proof
"""

from coala_core.cvxnn.admm import solve
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.gates import sample_gates
from coala_core.cvxnn.halt import Halt
from coala_core.cvxnn.memory import needs_disk
from coala_core.cvxnn.network import Head
from coala_core.cvxnn.outcome import Outcome, Record, Status, WarmStart
from coala_core.cvxnn.path import fit_head, fit_path
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.cvxnn.solution import Path, Solution
from coala_core.cvxnn.zero import zero_head_weight

__all__ = [
    "ConvexProblem",
    "GatedProblem",
    "Halt",
    "Head",
    "Outcome",
    "Path",
    "Record",
    "Solution",
    "Status",
    "WarmStart",
    "convex_problem",
    "fit_head",
    "fit_path",
    "needs_disk",
    "sample_gates",
    "solve",
    "zero_head_weight",
]
