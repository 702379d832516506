"""Tables that leave the program: pandas DataFrames for the library, CSV and Parquet for the command line.

Addresses, PFNs and counts are ``uint64`` where each row has one and nullable ``UInt64`` where a row may lack one,
words of a fixed vocabulary are categorical, times of a trace are ``timedelta64[ns]`` since boot.  The dtypes of a table
depend on the table only, never on the evidence, so tables of several hosts can be concatenated.

pandas is imported when the first table is made, not before.
"""
