/* flux/sample/prompts.c: embeddings of the latest prompts. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/sample/prompts.h"

#include "flux/error.h"

enum { ROOM = 32 };

struct _FluxPrompts {
  char *dir;
  fx_backend *backend;
  fx_qtype qtype;
  FluxWeightsCache *cache;  /* not owned, or NULL */
  FluxTextEncoder *encoder; /* NULL while it is not loaded */
  GHashTable *known;        /* "tokens:prompt" -> FluxPromptEmbedding */
  GQueue latest;            /* keys of known, the oldest first */
  guint room;
  FluxProgressFunc progress; /* or NULL */
  gpointer progress_data;
};

static void
embedding_free (gpointer data)
{
  FluxPromptEmbedding *e = data;

  g_free (e->prompt_embeds);
  g_free (e->pooled);
  g_free (e);
}

FluxPrompts *
flux_prompts_new (const char *dir, fx_backend *b, fx_qtype qtype)
{
  FluxPrompts *self = g_new0 (FluxPrompts, 1);

  self->dir = g_strdup (dir);
  self->backend = b;
  self->qtype = qtype;
  self->room = ROOM;
  self->known = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, embedding_free);
  g_queue_init (&self->latest);
  return self;
}

void
flux_prompts_free (FluxPrompts *self)
{
  if (self == NULL)
    return;
  flux_prompts_free_encoder (self);
  g_queue_clear (&self->latest);
  g_hash_table_unref (self->known);
  g_free (self->dir);
  g_free (self);
}

void
flux_prompts_set_room (FluxPrompts *self, guint n)
{
  self->room = MAX (self->room, n);
}

void
flux_prompts_set_cache (FluxPrompts *self, FluxWeightsCache *cache)
{
  self->cache = cache;
}

void
flux_prompts_set_progress (FluxPrompts *self, FluxProgressFunc progress, gpointer data)
{
  self->progress = progress;
  self->progress_data = data;
}

void
flux_prompts_free_encoder (FluxPrompts *self)
{
  g_clear_pointer (&self->encoder, flux_text_encoder_free);
}

static FluxPromptEmbedding *
encode (FluxPrompts *self, const char *prompt, int text_tokens, GError **error)
{
  const FluxTextInfo *info;
  FluxPromptEmbedding *e;

  if (self->encoder == NULL)
    self->encoder = flux_text_encoder_load (self->dir, self->backend, self->qtype,
        self->cache, self->progress, self->progress_data, error);
  if (self->encoder == NULL)
    return NULL;
  info = flux_text_encoder_get_info (self->encoder);
  e = g_new0 (FluxPromptEmbedding, 1);
  e->text_tokens = text_tokens;
  e->prompt_embeds = g_new (float, (gsize)text_tokens *(gsize)info->joint_dim);
  e->pooled = g_new (float, (gsize)info->pooled_dim);
  if (!flux_text_encode (self->encoder, prompt, text_tokens, e->prompt_embeds, e->pooled,
          self->progress, self->progress_data, error)) {
    embedding_free (e);
    return NULL;
  }
  return e;
}

static char *
key_of (const char *prompt, int text_tokens)
{
  return g_strdup_printf ("%d:%s", text_tokens, prompt);
}

gboolean
flux_prompts_has (FluxPrompts *self, const char *prompt, int text_tokens)
{
  g_autofree char *key = key_of (prompt, text_tokens);

  return g_hash_table_contains (self->known, key);
}

const FluxPromptEmbedding *
flux_prompts_get (FluxPrompts *self, const char *prompt, int text_tokens, GError **error)
{
  g_autofree char *key = key_of (prompt, text_tokens);
  FluxPromptEmbedding *e = g_hash_table_lookup (self->known, key);

  if (e != NULL)
    return e;
  e = encode (self, prompt, text_tokens, error);
  if (e == NULL)
    return NULL;
  while (g_queue_get_length (&self->latest) >= self->room)
    g_hash_table_remove (self->known, g_queue_pop_head (&self->latest));
  g_queue_push_tail (&self->latest, key);
  g_hash_table_insert (self->known, g_steal_pointer (&key), e);
  return e;
}
