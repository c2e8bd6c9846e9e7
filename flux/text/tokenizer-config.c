/* flux/text/tokenizer-config.c: what the small JSON files beside a vocabulary say.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/text/tokenizer-config.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"

#define MAX_FILE (64 * 1024 * 1024)

char *
flux_text_read_file (const char *path, gsize *len, GError **error)
{
  g_autoptr (GError) local = NULL;
  GStatBuf info;
  char *text;

  if (g_stat (path, &info) != 0) {
    flux_error_from_errno (error, FLUX_ERROR_READ, errno, "Cannot read", path);
    return NULL;
  }
  if (!S_ISREG (info.st_mode) || info.st_size > MAX_FILE) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no tokenizer file: it is not a regular file of at most 64 MiB.", path);
    return NULL;
  }
  if (!g_file_get_contents (path, &text, len, &local)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_READ, "%s.", local->message);
    return NULL;
  }
  return text;
}

static void
spec_clear (gpointer data)
{
  FluxTokenSpec *spec = data;

  g_clear_pointer (&spec->content, g_free);
}

static void
spec_init (FluxTokenSpec *spec)
{
  memset (spec, 0, sizeof *spec);
  spec->id = -1;
}

/* Any value; TRUE for true, FALSE for every other. */
static gboolean
read_true (FluxJsonCursor *c)
{
  const char *from;

  while (c->p < c->end && strchr (" \t\r\n", *c->p) != NULL)
    c->p++;
  from = c->p;
  return flux_json_skip (c) && c->p - from == 4 && memcmp (from, "true", 4) == 0;
}

static char
next_byte (FluxJsonCursor *c)
{
  while (c->p < c->end && strchr (" \t\r\n", *c->p) != NULL)
    c->p++;
  return c->p < c->end ? *c->p : '\0';
}

/* "text", {"content": "text", ...} or null; what was there before is replaced. */
static gboolean
read_spec (FluxJsonCursor *c, FluxTokenSpec *spec)
{
  gboolean first = TRUE;
  char *name;
  guint64 id;

  if (next_byte (c) != '"' && next_byte (c) != '{')
    return flux_json_skip (c);
  spec_clear (spec);
  spec->normalized = spec->lstrip = spec->rstrip = spec->single_word = FALSE;
  if (next_byte (c) == '"') {
    spec->content = flux_json_read_string (c);
    return spec->content != NULL;
  }
  flux_json_open (c, '{');
  while (flux_json_next_member (c, &first, &name)) {
    g_autofree char *owned = name;

    if (strcmp (owned, "content") == 0) {
      g_free (spec->content);
      spec->content = flux_json_read_string (c);
    } else if (strcmp (owned, "normalized") == 0) {
      spec->normalized = read_true (c);
    } else if (strcmp (owned, "lstrip") == 0) {
      spec->lstrip = read_true (c);
    } else if (strcmp (owned, "rstrip") == 0) {
      spec->rstrip = read_true (c);
    } else if (strcmp (owned, "single_word") == 0) {
      spec->single_word = read_true (c);
    } else if (strcmp (owned, "id") == 0) {
      if (flux_json_read_size (c, &id))
        spec->id = (gint64)id;
    } else {
      flux_json_skip (c);
    }
  }
  return c->fault == NULL;
}

/* {"49406": {...}, ...} or [{"id": 49406, ...}, ...] */
static gboolean
read_added (FluxJsonCursor *c, GArray *added)
{
  gboolean object = next_byte (c) == '{', first = TRUE;
  char *name = NULL;

  flux_json_open (c, object ? '{' : '[');
  while (object ? flux_json_next_member (c, &first, &name)
                : flux_json_next_element (c, &first)) {
    g_autofree char *owned = name;
    FluxTokenSpec spec;
    guint64 id;

    spec_init (&spec);
    if (!read_spec (c, &spec) || spec.content == NULL) {
      spec_clear (&spec);
      return flux_json_fail (c, "an added token has no content");
    }
    if (object && g_ascii_string_to_unsigned (owned, 10, 0, G_MAXINT64, &id, NULL))
      spec.id = (gint64)id;
    g_array_append_val (added, spec);
    name = NULL;
  }
  return c->fault == NULL;
}

/* added_key: the member that lists added tokens, or NULL; named: take bos_token and the
 * like. An absent file says nothing. */
static gboolean
read_file (FluxTokenizerConfig *self, const char *dir, const char *file,
    const char *added_key, gboolean named, GError **error)
{
  static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
  g_autofree char *path = g_build_filename (dir, file, NULL);
  g_autofree char *text = NULL;
  FluxJsonCursor c;
  gboolean first = TRUE;
  char *name;
  gsize len;

  if (!g_file_test (path, G_FILE_TEST_EXISTS))
    return TRUE;
  text = flux_text_read_file (path, &len, error);
  if (text == NULL)
    return FALSE;
  flux_json_cursor_init (&c, text, len);
  flux_json_open (&c, '{');
  while (flux_json_next_member (&c, &first, &name)) {
    g_autofree char *owned = name;
    guint i;

    for (i = 0; named && i < G_N_ELEMENTS (keys); i++) {
      if (strcmp (owned, keys[i]) == 0)
        break;
    }
    if (named && i < G_N_ELEMENTS (keys))
      read_spec (&c, &self->named[i]);
    else if (added_key != NULL && strcmp (owned, added_key) == 0)
      read_added (&c, self->added);
    else
      flux_json_skip (&c);
  }
  if (flux_json_finish (&c))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is damaged at byte %" G_GSIZE_FORMAT ": %s; fetch the file again.", path,
      (gsize)(c.p - c.start), c.fault);
  return FALSE;
}

static gboolean
check (const FluxTokenizerConfig *self, const char *dir, GError **error)
{
  for (guint i = 0; i < self->added->len + FLUX_N_NAMED_TOKENS; i++) {
    const FluxTokenSpec *spec = i < self->added->len
                                    ? &g_array_index (self->added, FluxTokenSpec, i)
                                    : &self->named[i - self->added->len];

    if (spec->single_word) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
          "The tokenizer in '%s' matches '%s' as a single word, which neither CLIP nor "
          "T5 "
          "does; use the tokenizer of the model.",
          dir, spec->content);
      return FALSE;
    }
    if (spec->id > G_MAXINT32) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
          "The tokenizer in '%s' gives '%s' an id that is too large.", dir,
          spec->content);
      return FALSE;
    }
  }
  return TRUE;
}

FluxTokenizerConfig *
flux_tokenizer_config_read (const char *dir, GError **error)
{
  g_autoptr (FluxTokenizerConfig) self = g_new0 (FluxTokenizerConfig, 1);

  for (guint i = 0; i < FLUX_N_NAMED_TOKENS; i++)
    spec_init (&self->named[i]);
  self->added = g_array_new (FALSE, FALSE, sizeof (FluxTokenSpec));
  g_array_set_clear_func (self->added, spec_clear);
  if (!read_file (
          self, dir, "tokenizer_config.json", "added_tokens_decoder", TRUE, error))
    return NULL;
  if (self->added->len == 0 &&
      (!read_file (self, dir, "special_tokens_map.json", NULL, TRUE, error) ||
          !read_file (self, dir, "tokenizer.json", "added_tokens", FALSE, error)))
    return NULL;
  return check (self, dir, error) ? g_steal_pointer (&self) : NULL;
}

void
flux_tokenizer_config_free (FluxTokenizerConfig *self)
{
  if (self == NULL)
    return;
  for (guint i = 0; i < FLUX_N_NAMED_TOKENS; i++)
    spec_clear (&self->named[i]);
  if (self->added != NULL)
    g_array_unref (self->added);
  g_free (self);
}

/* The token whose flags count for content. */
static const FluxTokenSpec *
authority (const FluxTokenizerConfig *self, const char *content)
{
  const FluxTokenSpec *last = NULL;

  for (guint i = 0; i < self->added->len; i++) {
    const FluxTokenSpec *added = &g_array_index (self->added, FluxTokenSpec, i);

    if (strcmp (added->content, content) == 0)
      return added;
  }
  for (guint i = 0; i < FLUX_N_NAMED_TOKENS; i++) {
    if (g_strcmp0 (self->named[i].content, content) == 0)
      last = &self->named[i];
  }
  return last;
}

void
flux_tokenizer_config_complete (FluxTokenizerConfig *self, const char *const *fallback)
{
  for (guint i = 0; i < FLUX_N_NAMED_TOKENS; i++) {
    if (self->named[i].content == NULL)
      self->named[i].content = g_strdup (fallback[i]);
  }
  for (guint i = 0; i < FLUX_N_NAMED_TOKENS; i++) {
    char *content = self->named[i].content;

    if (content == NULL)
      continue;
    self->named[i] = *authority (self, content);
    self->named[i].content = content;
  }
}
