"""Who may write now. Built on asyncio and threading alone."""
