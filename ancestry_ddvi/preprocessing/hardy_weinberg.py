def hardy_weinberg_p(a,b,c): raise NotImplementedError
