"""A Django project as small as it can be: one app, and the users that nearly every project has."""

from urllib.parse import urlsplit

from psycopg import IsolationLevel

from steps import URLS


def database(url):
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": parts.hostname,
        "PORT": parts.port,
        "USER": parts.username,
        "NAME": parts.path.strip("/"),
        "OPTIONS": {"isolation_level": IsolationLevel.SERIALIZABLE},
    }


DATABASES = {"default": database(URLS[0]), "other": database(URLS[-1])}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
SECRET_KEY = "nothing is kept secret here"
