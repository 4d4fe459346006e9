"""RaMBO: ranking metrics optimised by blackbox differentiation (Rolinek et al., CVPR 2020, arXiv:1912.03500)."""
