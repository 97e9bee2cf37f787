"""CuPy on a machine without a device: its rules kept, its arithmetic done by NumPy, its traffic counted.

An array of this imitation refuses what CuPy's refuses: to become a NumPy array by itself, to be mixed with one, to be
passed to functions or keywords that CuPy lacks. `Ledger` counts what a device would be asked for: kernels, and reads
by the host, each of which waits for everything that was asked for before. Kernels of our own are compiled from their
real source by the C++ compiler. What it cannot show is speed, and the compilation for a device (tests/cuda).

``functions``  what may be called, with its parameters, which tests/cuda compares with CuPy's
``arrays``     the array        ``kernels``  elementwise kernels        ``ledger``  the count
"""

from tests.imitated_cupy.ledger import LEDGER, Ledger
from tests.imitated_cupy.library import imitated_cupy

__all__ = ["LEDGER", "Ledger", "imitated_cupy"]
