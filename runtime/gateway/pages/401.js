window.location = "/login?next=" + encodeURIComponent(window.location.pathname + window.location.search);
