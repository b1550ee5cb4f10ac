"""How evenly new connections come to four workers: after one restarts empty, after a storm, and
while one stalls.
"""
