/* flux/hub/uri.c: what is asked for, and of whom. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <string.h>

#include "flux/hub/hub-private.h"

#define SCHEME "hf://"
#define ENDPOINT "https://huggingface.co"
enum { DEFAULT_TIMEOUT = 10, MAX_TIMEOUT = 3600, MAX_TOKEN = 4096, MAX_REVISION = 255 };

gboolean
flux_hub_is_uri (const char *location)
{
  return location != NULL && g_str_has_prefix (location, SCHEME);
}

gboolean
flux_hub_is_hex (const char *text, gsize digits)
{
  if (text == NULL || strlen (text) != digits)
    return FALSE;
  for (gsize i = 0; i < digits; i++)
    if (!g_ascii_isxdigit (text[i]) || g_ascii_isupper (text[i]))
      return FALSE;
  return TRUE;
}

gboolean
flux_hub_is_safe_path (const char *path)
{
  gsize length = strlen (path);
  guint depth = 0;

  if (length == 0 || length > FLUX_HUB_MAX_PATH || strchr (path, '\\') != NULL ||
      !g_utf8_validate (path, (gssize)length, NULL))
    return FALSE;
  for (const char *p = path; p != NULL; depth++) {
    const char *slash = strchr (p, '/');
    gsize n = slash != NULL ? (gsize)(slash - p) : strlen (p);

    if (n == 0 || n > 255 || (n == 1 && p[0] == '.') ||
        (n == 2 && p[0] == '.' && p[1] == '.') || depth > FLUX_HUB_MAX_DEPTH)
      return FALSE;
    for (gsize i = 0; i < n; i++)
      if (g_ascii_iscntrl (p[i]))
        return FALSE;
    p = slash != NULL ? slash + 1 : NULL;
  }
  return TRUE;
}

/* A user's or repository's name (utils/_validators.py: letters, digits, '-', '_', '.'; no
 * "--" and no ".."). */
static gboolean
is_name (const char *name)
{
  gsize n = strlen (name);

  if (n == 0 || n > 96 || name[0] == '.' || name[0] == '-' || name[n - 1] == '.' ||
      name[n - 1] == '-' || strstr (name, "--") != NULL || strstr (name, "..") != NULL)
    return FALSE;
  for (gsize i = 0; i < n; i++)
    if (!g_ascii_isalnum (name[i]) && strchr ("-_.", name[i]) == NULL)
      return FALSE;
  return TRUE;
}

static gboolean
refuse (const char *uri, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "'%s' names nothing on the Hub: write hf://user/name, hf://user/name@revision/path "
      "or hf://datasets/user/name.",
      uri);
  return FALSE;
}

/* Takes "revision" off the front of rest: up to the next '/', except refs/pr/1 and
 * refs/convert/parquet, which have two. */
static char *
take_revision (const char **rest)
{
  const char *p = *rest, *end;
  guint slashes =
      g_str_has_prefix (p, "refs/pr/") || g_str_has_prefix (p, "refs/convert/") ? 3 : 1;
  g_autofree char *escaped = NULL;

  for (end = p; *end != '\0'; end++)
    if (*end == '/' && --slashes == 0)
      break;
  *rest = *end == '/' ? end + 1 : end;
  escaped = g_strndup (p, (gsize)(end - p));
  return g_uri_unescape_string (escaped, NULL);
}

gboolean
flux_hub_ref_parse (FluxHubRef *self, const char *uri, GError **error)
{
  const char *rest, *at, *slash;
  g_autofree char *user = NULL, *name = NULL, *path = NULL;

  memset (self, 0, sizeof *self);
  if (!flux_hub_is_uri (uri) || strlen (uri) > 4 * FLUX_HUB_MAX_PATH)
    return refuse (uri, error);
  rest = uri + strlen (SCHEME);
  if (g_str_has_prefix (rest, "datasets/")) {
    self->is_dataset = TRUE;
    rest += strlen ("datasets/");
  } else if (g_str_has_prefix (rest, "models/"))
    rest += strlen ("models/");
  slash = strchr (rest, '/');
  if (slash == NULL)
    return refuse (uri, error);
  user = g_strndup (rest, (gsize)(slash - rest));
  rest = slash + 1;
  slash = strchr (rest, '/');
  at = strchr (rest, '@');
  if (at != NULL && (slash == NULL || at < slash)) {
    name = g_strndup (rest, (gsize)(at - rest));
    rest = at + 1;
    self->revision = take_revision (&rest);
  } else {
    name = slash != NULL ? g_strndup (rest, (gsize)(slash - rest)) : g_strdup (rest);
    rest = slash != NULL ? slash + 1 : "";
    self->revision = g_strdup ("main");
  }
  path = g_strdup (rest);
  if (g_str_has_suffix (path, "/"))
    path[strlen (path) - 1] = '\0';
  if (!is_name (user) || !is_name (name) || self->revision == NULL ||
      strlen (self->revision) > MAX_REVISION || !flux_hub_is_safe_path (self->revision) ||
      (path[0] != '\0' && !flux_hub_is_safe_path (path))) {
    flux_hub_ref_clear (self);
    return refuse (uri, error);
  }
  self->repo = g_strdup_printf ("%s/%s", user, name);
  self->path = g_steal_pointer (&path);
  return TRUE;
}

void
flux_hub_ref_clear (FluxHubRef *self)
{
  g_clear_pointer (&self->repo, g_free);
  g_clear_pointer (&self->revision, g_free);
  g_clear_pointer (&self->path, g_free);
}

/* ---- the environment (constants.py of huggingface_hub) ---- */

static const char *
get_env (const char *name)
{
  const char *value = g_getenv (name);

  return value != NULL && value[0] != '\0' ? value : NULL;
}

static gboolean
is_true (const char *name)
{
  static const char *const yes[] = {"1", "ON", "YES", "TRUE"};
  const char *value = get_env (name);

  for (guint i = 0; value != NULL && i < G_N_ELEMENTS (yes); i++)
    if (g_ascii_strcasecmp (value, yes[i]) == 0)
      return TRUE;
  return FALSE;
}

static char *
expand_home (const char *path)
{
  if (path[0] == '~' && (path[1] == '/' || path[1] == '\0'))
    return g_build_filename (g_get_home_dir (), path + 1, NULL);
  return g_strdup (path);
}

static char *
get_home (void)
{
  if (get_env ("HF_HOME") != NULL)
    return expand_home (get_env ("HF_HOME"));
  if (get_env ("XDG_CACHE_HOME") != NULL)
    return g_build_filename (get_env ("XDG_CACHE_HOME"), "huggingface", NULL);
  return g_build_filename (g_get_home_dir (), ".cache", "huggingface", NULL);
}

/* Where the token is looked for; the text has to fit into a header. */
static gboolean
read_token (FluxHub *self, const char *home, GError **error)
{
  const char *env = get_env ("HF_TOKEN");
  g_autofree char *path = NULL, *text = NULL;

  if (env == NULL)
    env = get_env ("HUGGING_FACE_HUB_TOKEN");
  if (env != NULL) {
    text = g_strdup (env);
  } else if (!is_true ("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
    path = get_env ("HF_TOKEN_PATH") != NULL ? expand_home (get_env ("HF_TOKEN_PATH"))
                                             : g_build_filename (home, "token", NULL);
    if (!g_file_test (path, G_FILE_TEST_IS_REGULAR) ||
        !g_file_get_contents (path, &text, NULL, NULL))
      return TRUE;
  } else
    return TRUE;
  g_strstrip (text);
  if (text[0] == '\0')
    return TRUE;
  for (const char *p = text; *p != '\0'; p++)
    if (!g_ascii_isgraph (*p) || p - text > MAX_TOKEN) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
          "The Hub token in %s%s is not one line of plain characters: copy it again.",
          path != NULL ? "the file " : "HF_TOKEN", path != NULL ? path : "");
      return FALSE;
    }
  self->token = g_steal_pointer (&text);
  return TRUE;
}

static gboolean
read_endpoint (FluxHub *self, GError **error)
{
  const char *env = get_env ("HF_ENDPOINT");
  g_autoptr (GUri) uri = NULL;

  self->endpoint = g_strdup (env != NULL ? env : ENDPOINT);
  while (g_str_has_suffix (self->endpoint, "/"))
    self->endpoint[strlen (self->endpoint) - 1] = '\0';
  uri = g_uri_parse (self->endpoint, G_URI_FLAGS_NONE, NULL);
  if (uri != NULL && g_uri_get_host (uri) != NULL && g_uri_get_query (uri) == NULL &&
      g_uri_get_userinfo (uri) == NULL && g_uri_get_fragment (uri) == NULL &&
      (strcmp (g_uri_get_scheme (uri), "https") == 0 ||
          strcmp (g_uri_get_scheme (uri), "http") == 0))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "HF_ENDPOINT is no address of a Hub: write https://HOST, or unset it.");
  return FALSE;
}

gboolean
flux_hub_init (FluxHub *self, const char *uri, GError **error)
{
  const char *cache = get_env ("HF_HUB_CACHE"), *timeout;
  g_autofree char *home = get_home (), *flat = NULL;
  guint64 seconds;

  memset (self, 0, sizeof *self);
  g_mutex_init (&self->lock);
  self->cancellable = g_cancellable_new ();
  if (!flux_hub_ref_parse (&self->ref, uri, error) || !read_endpoint (self, error) ||
      !read_token (self, home, error))
    return FALSE;
  if (cache == NULL)
    cache = get_env ("HUGGINGFACE_HUB_CACHE");
  self->cache =
      cache != NULL ? expand_home (cache) : g_build_filename (home, "hub", NULL);
  flat = g_strdup (self->ref.repo);
  *strchr (flat, '/') = '\0';
  self->folder = g_strdup_printf ("%s--%s--%s",
      self->ref.is_dataset ? "datasets" : "models", flat, flat + strlen (flat) + 1);
  self->offline = is_true ("HF_HUB_OFFLINE");
  self->timeout = DEFAULT_TIMEOUT;
  timeout = get_env ("HF_HUB_DOWNLOAD_TIMEOUT");
  if (timeout != NULL &&
      g_ascii_string_to_unsigned (timeout, 10, 1, MAX_TIMEOUT, &seconds, NULL))
    self->timeout = (guint)seconds;
  return TRUE;
}

void
flux_hub_clear (FluxHub *self)
{
  flux_hub_ref_clear (&self->ref);
  g_clear_object (&self->cancellable);
  g_free (self->endpoint);
  g_free (self->token);
  g_free (self->cache);
  g_free (self->folder);
  g_mutex_clear (&self->lock);
}

char *
flux_hub_page (FluxHub *self)
{
  return g_strdup_printf (
      "%s/%s%s", self->endpoint, self->ref.is_dataset ? "datasets/" : "", self->ref.repo);
}

void
flux_hub_count (FluxHub *self, gint64 bytes)
{
  g_mutex_lock (&self->lock);
  self->done =
      bytes < 0 && self->done < (guint64)-bytes ? 0 : self->done + (guint64)bytes;
  g_mutex_unlock (&self->lock);
}
