"""Local attention: each pixel looks at a window around it (SASA, Ramachandran et al. 2019, section 3)."""
