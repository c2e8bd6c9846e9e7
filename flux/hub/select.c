/* flux/hub/select.c: which files of a repository are needed. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * The rules are those by which the files are looked for on disk: weights as in
 * flux/files/safetensors.h, data sets as in flux/data/dataset.h, so that what is found
 * in the snapshot is what would be found in a clone. */
#include <string.h>

#include "flux/files/safetensors.h"
#include "flux/hub/hub-private.h"

#define SAFETENSORS ".safetensors"

typedef struct {
  const FluxHubRef *ref;
  const FluxHubListing *listing;
  GPtrArray *chosen; /* borrowed FluxHubFile */
} Selection;

static char *
join (const char *folder, const char *name)
{
  return folder[0] != '\0' ? g_strconcat (folder, "/", name, NULL) : g_strdup (name);
}

static const FluxHubFile *
find (const Selection *self, const char *folder, const char *name)
{
  g_autofree char *path = join (folder, name);

  for (guint i = 0; i < self->listing->files->len; i++) {
    const FluxHubFile *file = self->listing->files->pdata[i];

    if (strcmp (file->path, path) == 0)
      return file;
  }
  return NULL;
}

static gboolean
take (Selection *self, const char *folder, const char *name)
{
  const FluxHubFile *file = find (self, folder, name);

  if (file != NULL && !g_ptr_array_find (self->chosen, file, NULL))
    g_ptr_array_add (self->chosen, (gpointer)file);
  return file != NULL;
}

/* What follows "folder/" in path, or NULL when it is elsewhere. */
static const char *
inside (const char *path, const char *folder)
{
  gsize n = strlen (folder);

  if (n == 0)
    return path;
  return strncmp (path, folder, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

/* The same, when it is the name of a file directly in it. */
static const char *
directly_in (const char *path, const char *folder)
{
  const char *name = inside (path, folder);

  return name != NULL && strchr (name, '/') == NULL ? name : NULL;
}

static gboolean
has_folder (const Selection *self, const char *folder)
{
  for (guint i = 0; i < self->listing->files->len; i++)
    if (inside (((FluxHubFile *)self->listing->files->pdata[i])->path, folder) != NULL)
      return TRUE;
  return FALSE;
}

/* ---- models ---- */

/* STEM-00001-of-00003.safetensors */
static gboolean
is_shard (const char *name, const char *stem)
{
  gsize n = strlen (stem);
  const char *p;

  if (strncmp (name, stem, n) != 0)
    return FALSE;
  for (p = name + n;
       *p != '\0' && (g_ascii_isdigit (*p) || *p == '-' || *p == 'o' || *p == 'f'); p++)
    ;
  return p > name + n && p[-1] != '-' && name[n] == '-' && strcmp (p, SAFETENSORS) == 0;
}

static gboolean
take_only_safetensors (Selection *self, const char *folder)
{
  const FluxHubFile *only = NULL;

  for (guint i = 0; i < self->listing->files->len; i++) {
    const FluxHubFile *file = self->listing->files->pdata[i];

    if (directly_in (file->path, folder) == NULL ||
        !g_str_has_suffix (file->path, SAFETENSORS))
      continue;
    if (only != NULL)
      return FALSE;
    only = file;
  }
  if (only != NULL)
    g_ptr_array_add (self->chosen, (gpointer)only);
  return only != NULL;
}

static gboolean
take_weights (Selection *self, const char *folder, GError **error)
{
  static const char *const stems[] = {"diffusion_pytorch_model", "model"};

  for (guint s = 0; s < G_N_ELEMENTS (stems); s++) {
    g_autofree char *single = g_strconcat (stems[s], SAFETENSORS, NULL);
    g_autofree char *index = g_strconcat (single, ".index.json", NULL);

    if (take (self, folder, single))
      return TRUE;
    if (!take (self, folder, index))
      continue;
    for (guint i = 0; i < self->listing->files->len; i++) {
      const FluxHubFile *file = self->listing->files->pdata[i];
      const char *name = directly_in (file->path, folder);

      if (name != NULL && is_shard (name, stems[s]))
        g_ptr_array_add (self->chosen, (gpointer)file);
    }
    return TRUE;
  }
  if (take_only_safetensors (self, folder))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
      "%s has no safetensors weights in '%s': name a repository in the diffusers layout.",
      self->ref->repo, folder[0] != '\0' ? folder : "/");
  return FALSE;
}

static void
take_tokenizer (Selection *self, const char *folder)
{
  static const char *const names[] = {"vocab.json", "merges.txt", "spiece.model",
      "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"};

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    take (self, folder, names[i]);
}

/* A component is a folder of the model; a transformer or VAE may be the folder itself. */
static gboolean
take_component (
    Selection *self, const char *base, const char *name, gboolean or_base, GError **error)
{
  g_autofree char *folder = join (base, name);
  const char *where = folder;

  if (!has_folder (self, folder)) {
    if (!or_base || !find (self, base, "config.json")) {
      g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
          "%s has no '%s': name a FLUX.1 model in the diffusers layout, such as "
          "hf://black-forest-labs/FLUX.1-dev.",
          self->ref->repo, folder);
      return FALSE;
    }
    where = base;
  }
  take (self, where, "config.json");
  return take_weights (self, where, error);
}

static gboolean
select_model (Selection *self, FluxHubWant want, GError **error)
{
  const char *base = self->ref->path;
  g_autofree char *scheduler = join (base, "scheduler");
  g_autofree char *first = join (base, "tokenizer"), *second = join (base, "tokenizer_2");

  take (self, base, "model_index.json");
  if (want & FLUX_HUB_SCHEDULER)
    take (self, scheduler, "scheduler_config.json");
  if (want & FLUX_HUB_TEXT) {
    take_tokenizer (self, first);
    take_tokenizer (self, second);
  }
  if ((want & FLUX_HUB_VAE) && !take_component (self, base, "vae", TRUE, error))
    return FALSE;
  if ((want & FLUX_HUB_TEXT) &&
      (!take_component (self, base, "text_encoder", FALSE, error) ||
          !take_component (self, base, "text_encoder_2", FALSE, error)))
    return FALSE;
  return !(want & FLUX_HUB_TRANSFORMER) ||
         take_component (self, base, "transformer", TRUE, error);
}

/* ---- adapters ---- */

static gboolean
select_lora (Selection *self, char **path, GError **error)
{
  const char *base = self->ref->path;

  if (!take (self, base, FLUX_LORA_FILE) && !take_only_safetensors (self, base)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "%s has no %s and not exactly one .safetensors file: name the adapter's file, as "
        "hf://%s/NAME.safetensors.",
        self->ref->repo, FLUX_LORA_FILE, self->ref->repo);
    return FALSE;
  }
  *path = g_strdup (((FluxHubFile *)self->chosen->pdata[0])->path);
  return TRUE;
}

/* ---- data sets ---- */

gboolean
flux_hub_ends_in (const char *name, const char *const *ends)
{
  g_autofree char *lower = g_ascii_strdown (name, -1);

  for (; *ends != NULL; ends++)
    if (g_str_has_suffix (lower, *ends))
      return TRUE;
  return FALSE;
}

static gboolean
is_picture (const char *name)
{
  static const char *const ends[] = {
      ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", NULL};

  return flux_hub_ends_in (name, ends);
}

static gboolean
is_caption (const char *name)
{
  return g_str_has_suffix (name, ".txt") || g_str_has_suffix (name, ".caption");
}

/* Files of folder whose name is_kind says yes to; deep: below it too. */
static guint
take_all (Selection *self, const char *folder, gboolean (*is_kind) (const char *name),
    gboolean deep)
{
  guint n = 0;

  for (guint i = 0; i < self->listing->files->len; i++) {
    const FluxHubFile *file = self->listing->files->pdata[i];
    const char *name =
        deep ? inside (file->path, folder) : directly_in (file->path, folder);

    if (name != NULL && name[0] != '.' && is_kind (name)) {
      g_ptr_array_add (self->chosen, (gpointer)file);
      n++;
    }
  }
  return n;
}

static gboolean
is_parquet (const char *name)
{
  return g_str_has_suffix (name, ".parquet");
}

static gboolean
is_train_parquet (const char *name)
{
  return is_parquet (name) && g_str_has_prefix (name, "train");
}

static gboolean
take_tables (Selection *self, const char *folder)
{
  return take_all (self, folder, is_train_parquet, FALSE) > 0 ||
         take_all (self, folder, is_parquet, FALSE) > 0;
}

static gboolean
select_folder (Selection *self, const char *folder, gboolean is_train)
{
  g_autofree char *data = join (folder, "data"), *train = join (folder, "train");

  if (take (self, folder, "metadata.jsonl")) {
    take_all (self, folder, is_picture, TRUE);
    return TRUE;
  }
  if (take_all (self, folder, is_picture, FALSE) > 0) {
    take_all (self, folder, is_caption, FALSE);
    return TRUE;
  }
  return take_tables (self, folder) || take_tables (self, data) ||
         (!is_train && select_folder (self, train, TRUE));
}

static gboolean
select_dataset (Selection *self, GError **error)
{
  if (select_folder (self, self->ref->path, FALSE))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
      "%s has no pictures and no parquet files%s%s: name the folder they are in.",
      self->ref->repo, self->ref->path[0] != '\0' ? " in " : "", self->ref->path);
  return FALSE;
}

GPtrArray *
flux_hub_select (const FluxHubRef *ref, const FluxHubListing *listing, FluxHubWant want,
    char **path, GError **error)
{
  Selection self = {ref, listing, g_ptr_array_new ()};
  gboolean ok;

  *path = NULL;
  if (ref->path[0] != '\0' && take (&self, "", ref->path)) {
    g_autofree char *folder = g_path_get_dirname (ref->path);

    /* A description goes with its pictures. */
    if (g_str_has_suffix (ref->path, ".jsonl"))
      take_all (&self, strcmp (folder, ".") == 0 ? "" : folder, is_picture, TRUE);
    ok = TRUE;
  } else if (ref->path[0] != '\0' && !has_folder (&self, ref->path)) {
    ok = FALSE;
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "%s has no file and no folder '%s' in revision '%s'.", ref->repo, ref->path,
        ref->revision);
  } else if (want & FLUX_HUB_LORA)
    ok = select_lora (&self, path, error);
  else if (want & FLUX_HUB_DATASET)
    ok = select_dataset (&self, error);
  else
    ok = select_model (&self, want, error);
  if (ok && *path == NULL)
    *path = g_strdup (ref->path);
  if (!ok)
    g_clear_pointer (&self.chosen, g_ptr_array_unref);
  return self.chosen;
}
