"""The worker class ``uvicorn``: applications that need asyncio. uvicorn serves their lifespan and
HTTP, the engine their WebSockets.
"""
