r"""Constants by which fingerprints mix their bits: the odd ones of splitmix64, and one more."""

STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
THIRD = 0xD1342543DE82EF95
