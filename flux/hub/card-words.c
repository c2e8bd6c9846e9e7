/* flux/hub/card-words.c: words that captions share, and the base model's name.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "flux/hub/card-private.h"
#include "flux/hub/hub-private.h"

enum { MAX_INDEX = 1 << 16 /* bytes of model_index.json */ };

static char **
split_words (const char *caption)
{
  char **words = g_strsplit_set (caption, " \t\r\n", -1);
  guint n = 0;

  for (guint i = 0; words[i] != NULL; i++) {
    if (words[i][0] != '\0')
      words[n++] = words[i];
    else
      g_free (words[i]);
  }
  words[n] = NULL;
  return words;
}

static void
truncate_words (char **words, guint n)
{
  for (guint i = n; words[i] != NULL; i++)
    g_free (words[i]);
  words[n] = NULL;
}

/* The same words at the end of both stay. */
static char **
common_tail (char **tail, char **words)
{
  guint a = g_strv_length (tail), b = g_strv_length (words), n = 0;
  char **shared;

  while (n < a && n < b && strcmp (tail[a - 1 - n], words[b - 1 - n]) == 0)
    n++;
  shared = g_strdupv (tail + a - n);
  g_strfreev (tail);
  return shared;
}

void
flux_card_share_words (FluxCard *self, const char *caption)
{
  g_auto (GStrv) words = split_words (caption);
  guint n = 0;

  if (self->head == NULL) {
    self->head = g_strdupv (words);
    self->tail = g_strdupv (words);
    self->is_one_text = TRUE;
    return;
  }
  while (
      self->head[n] != NULL && words[n] != NULL && strcmp (self->head[n], words[n]) == 0)
    n++;
  self->is_one_text = self->is_one_text && self->head[n] == NULL && words[n] == NULL;
  truncate_words (self->head, n);
  self->tail = common_tail (self->tail, words);
}

/* "a" in front of every caption is no trigger: one word has to be worth something. */
static char *
join_words (char **words)
{
  g_autofree char *text = g_strjoinv (" ", words);
  const char *start = text;
  gsize n;

  while (*start != '\0' && strchr (",;:.- ", *start) != NULL)
    start++;
  n = strlen (start);
  while (n > 0 && strchr (",;:. ", start[n - 1]) != NULL)
    n--;
  if (n < 4 && strchr (start, ' ') == NULL)
    return NULL;
  return n > 0 ? g_strndup (start, n) : NULL;
}

char *
flux_card_trigger_words (const FluxCard *self)
{
  char *tail;

  if (self->head == NULL)
    return NULL;
  if (self->is_one_text)
    return join_words (self->head);
  tail = join_words (self->tail);
  return tail != NULL ? tail : join_words (self->head);
}

/* ---- the base model ---- */

/* .../models--USER--NAME/snapshots/COMMIT */
static char *
name_of_snapshot (const char *path)
{
  g_auto (GStrv) parts = g_strsplit (path, "/", -1);

  for (guint i = 0; parts[i] != NULL; i++) {
    g_auto (GStrv) names = g_str_has_prefix (parts[i], "models--")
                               ? g_strsplit (parts[i] + strlen ("models--"), "--", -1)
                               : NULL;

    if (names != NULL && g_strv_length (names) == 2 &&
        g_strcmp0 (parts[i + 1], "snapshots") == 0)
      return g_strjoin ("/", names[0], names[1], NULL);
  }
  return NULL;
}

/* What diffusers wrote when it saved the model. */
static char *
name_in_index (const char *path)
{
  g_autofree char *file = g_build_filename (path, "model_index.json", NULL), *text = NULL;
  g_autofree char *name = NULL;
  gsize length;
  FluxJsonCursor c;

  if (!g_file_get_contents (file, &text, &length, NULL) || length > MAX_INDEX)
    return NULL;
  flux_json_cursor_init (&c, text, length);
  name = flux_hub_read_member (&c, "_name_or_path");
  return c.fault == NULL ? g_steal_pointer (&name) : NULL;
}

char *
flux_card_base_model (const char *path)
{
  g_autofree char *name = NULL, *uri = NULL;
  FluxHubRef ref;
  char *repo = NULL;

  if (path == NULL)
    return NULL;
  if (!flux_hub_is_uri (path)) {
    name = name_of_snapshot (path);
    if (name == NULL)
      name = name_in_index (path);
    if (name == NULL)
      return NULL;
    uri = g_strconcat ("hf://", name, NULL);
  }
  /* A path on somebody's disk is no name. */
  if (flux_hub_ref_parse (&ref, uri != NULL ? uri : path, NULL)) {
    if (uri == NULL || ref.path[0] == '\0')
      repo = g_steal_pointer (&ref.repo);
    flux_hub_ref_clear (&ref);
  }
  return repo;
}
