"""`alm2vec doctor`: examine a checkpoint on the machine where it will work, and say how to use it."""

from .diagnosing import diagnose as diagnose
from .diagnosis import Diagnosis as Diagnosis
