"""Names and calls of other attribution libraries, answered by whence.

A script written for captum, for pyDVL or for the reference code of EmpiricalIF runs with its
import line changed; none of the three needs to be installed. What their numbers mean, sign and
scale, is kept, and stands in the docstrings of :mod:`whence.compat.captum`,
:mod:`whence.compat.pydvl` and :mod:`whence.compat.if_pytorch`.
"""
