/* tests/golden/golden.c: the golden folder as one namespace.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/golden/parity.h"

#include <stdio.h>
#include <string.h>

gboolean
parity_open (Parity *p, GError **error)
{
  static const char *const names[] = {"golden.safetensors", "golden_more.safetensors"};

  p->seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  p->reported = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = g_build_filename (p->golden_dir, names[i], NULL);
    /* Only the first has to be there. */
    if (i > 0 && !g_file_test (path, G_FILE_TEST_EXISTS)) {
      parity_skip (p, names[i], "there is no such file in the golden folder");
      continue;
    }
    p->files[p->n_files] = flux_safetensors_open (path, error);
    if (p->files[p->n_files] == NULL)
      return FALSE;
    p->n_files++;
  }
  return TRUE;
}

void
parity_close (Parity *p)
{
  for (guint i = 0; i < G_N_ELEMENTS (p->bases); i++) {
    flux_transformer_unref (p->bases[i]);
    g_clear_error (&p->base_errors[i]);
  }
  for (guint i = 0; i < p->n_files; i++)
    flux_safetensors_unref (p->files[i]);
  if (p->backend != NULL)
    fx_backend_free (p->backend);
  g_clear_pointer (&p->seen, g_hash_table_unref);
  g_clear_pointer (&p->reported, g_hash_table_unref);
}

static const FluxTensor *
find (Parity *p, const char *name)
{
  for (guint i = 0; i < p->n_files; i++) {
    const FluxTensor *t = flux_safetensors_lookup (p->files[i], name);
    if (t == NULL)
      continue;
    g_hash_table_add (p->seen, g_strdup (name));
    return t;
  }
  return NULL;
}

const FluxTensor *
parity_find (Parity *p, const char *format, ...)
{
  g_autofree char *name = NULL;
  va_list args;

  va_start (args, format);
  name = g_strdup_vprintf (format, args);
  va_end (args);
  return find (p, name);
}

const char *
parity_metadata (Parity *p, const char *format, ...)
{
  g_autofree char *name = NULL;
  const char *value = NULL;
  va_list args;

  va_start (args, format);
  name = g_strdup_vprintf (format, args);
  va_end (args);
  for (guint i = 0; i < p->n_files && value == NULL; i++)
    value = flux_safetensors_get_metadata (p->files[i], name);
  return value;
}

JsonObject *
parity_settings (Parity *p, const char *format, ...)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *name = NULL;
  const char *text;
  JsonNode *root;
  va_list args;

  va_start (args, format);
  name = g_strdup_vprintf (format, args);
  va_end (args);
  text = parity_metadata (p, "%s", name);
  if (text == NULL || !json_parser_load_from_data (parser, text, -1, NULL))
    return NULL;
  root = json_parser_get_root (parser);
  return root != NULL && JSON_NODE_HOLDS_OBJECT (root)
             ? json_object_ref (json_node_get_object (root))
             : NULL;
}

double
parity_number (JsonObject *settings, const char *name, double fallback)
{
  JsonNode *node = json_object_get_member (settings, name);

  return node != NULL && JSON_NODE_HOLDS_VALUE (node) ? json_node_get_double (node)
                                                      : fallback;
}

guint64
parity_seed (Parity *p)
{
  const char *text = parity_metadata (p, "seed");

  return text != NULL ? g_ascii_strtoull (text, NULL, 10) : 0;
}

/* Numbers by value, before words. */
static gint
compare_indices (gconstpointer a, gconstpointer b)
{
  const char *x = *(const char *const *)a, *y = *(const char *const *)b;
  gboolean dx = g_ascii_isdigit (*x), dy = g_ascii_isdigit (*y);
  guint64 vx, vy;

  if (!dx || !dy)
    return dx != dy ? dy - dx : strcmp (x, y);
  vx = g_ascii_strtoull (x, NULL, 10);
  vy = g_ascii_strtoull (y, NULL, 10);
  return vx != vy ? (vx < vy ? -1 : 1) : strcmp (x, y);
}

static char **
collect (Parity *p, const char *prefix, gboolean whole)
{
  GPtrArray *found = g_ptr_array_new ();
  g_autoptr (GHashTable) once = g_hash_table_new (g_str_hash, g_str_equal);

  for (guint f = 0; f < p->n_files; f++) {
    for (guint i = 0; i < flux_safetensors_get_n_tensors (p->files[f]); i++) {
      const char *name = flux_safetensors_get_nth (p->files[f], i)->name, *rest;
      char *entry;
      if (!g_str_has_prefix (name, prefix))
        continue;
      rest = name + strlen (prefix);
      entry = whole ? g_strdup (name) : g_strndup (rest, strcspn (rest, "."));
      if (g_hash_table_contains (once, entry)) {
        g_free (entry);
        continue;
      }
      g_hash_table_add (once, entry);
      g_ptr_array_add (found, entry);
    }
  }
  g_ptr_array_sort (found, compare_indices);
  g_ptr_array_add (found, NULL);
  return (char **)g_ptr_array_free (found, FALSE);
}

char **
parity_indices (Parity *p, const char *prefix)
{
  return collect (p, prefix, FALSE);
}

char **
parity_names (Parity *p, const char *prefix)
{
  return collect (p, prefix, TRUE);
}

void
parity_mark (Parity *p, const char *prefix)
{
  g_auto (GStrv) names = parity_names (p, prefix);

  for (guint i = 0; names[i] != NULL; i++)
    g_hash_table_add (p->seen, g_strdup (names[i]));
}

float *
parity_floats (Parity *p, gsize *n, const char *format, ...)
{
  g_autofree char *name = NULL;
  const FluxTensor *t;
  float *values;
  va_list args;

  va_start (args, format);
  name = g_strdup_vprintf (format, args);
  va_end (args);
  t = find (p, name);
  if (t == NULL)
    return NULL;
  values = g_new (float, MAX (t->n_elements, 1));
  if (!flux_tensor_to_f32 (t, values, NULL))
    g_clear_pointer (&values, g_free);
  else if (n != NULL)
    *n = t->n_elements;
  return values;
}

/* The first two parts of a name, or all of it. */
static char *
group_of (const char *name)
{
  const char *dot = strchr (name, '.');

  dot = dot != NULL ? strchr (dot + 1, '.') : NULL;
  return dot != NULL ? g_strndup (name, (gsize)(dot - name)) : g_strdup (name);
}

void
parity_report_unknown (Parity *p)
{
  g_auto (GStrv) names = parity_names (p, "");
  g_autofree char *last = NULL;

  for (guint i = 0; names[i] != NULL; i++) {
    g_autofree char *group = NULL;
    if (g_hash_table_contains (p->seen, names[i]))
      continue;
    group = group_of (names[i]);
    if (g_strcmp0 (group, last) != 0)
      printf ("unknown  %s: no family compares '%s'\n", group, names[i]);
    g_free (last);
    last = g_steal_pointer (&group);
    p->n_unknown++;
  }
}
