"""Reader of tables for training, evaluation and devices: one set of rules, described in docs/TABLES.md.

| module | holds |
|---|---|
| `settings` | `TableSettings`: format of a table, detected by default |
| `dialect` | encoding, delimiter, quoting |
| `cells` | meaning of one cell |
| `columns` | header, units row, row numbers |
| `times` | time stamps |
| `rows` | lines to rows of numbers |
| `reader` | CSV, Parquet and NPZ files in chunks |
| `order` | order of a series by its column of times |
"""
