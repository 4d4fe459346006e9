"""RankSim (Gong et al., ICML 2022) and deep imbalanced regression, the benchmark it was made for."""
