"""Methods that a modality fuses unless its training names others."""
