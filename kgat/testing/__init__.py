r"""Checks of what must hold, public so that a user's own kernel is one call away from them.

:func:`check_kernel` holds a kernel to its laws, :func:`check_backend` a backend to the reference for one
kernel, and :func:`check_installation` all built-in kernels on all backends of a machine to their formulas.
"""

from kgat.testing.backend import check_backend
from kgat.testing.installation import check_installation
from kgat.testing.kernel import check_kernel

__all__ = ["check_backend", "check_installation", "check_kernel"]
