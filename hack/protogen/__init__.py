"""Makes the .proto files of API objects, third-party contracts and resource services from the fact tables.

What is made is committed and reads by itself; `make verify` makes it again and must find no difference.
"""
