/* pipelines/overrides.c: key=value words on top of a pipeline. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "pipelines/overrides.h"

#include <string.h>

/* " (none, nf4)" */
static char *
names_of (GParamSpec *spec)
{
  GString *s = g_string_new (NULL);

  if (G_IS_PARAM_SPEC_ENUM (spec)) {
    const GEnumClass *klass = G_PARAM_SPEC_ENUM (spec)->enum_class;

    for (guint i = 0; i < klass->n_values; i++)
      g_string_append_printf (
          s, "%s%s", i > 0 ? ", " : " (", klass->values[i].value_nick);
  } else {
    const GFlagsClass *klass = G_PARAM_SPEC_FLAGS (spec)->flags_class;

    for (guint i = 0; i < klass->n_values; i++)
      g_string_append_printf (
          s, "%s%s", i > 0 ? ", " : " (", klass->values[i].value_nick);
  }
  g_string_append (s, s->len == 0                   ? ""
                      : G_IS_PARAM_SPEC_ENUM (spec) ? ")"
                                                    : "; + joins them, 0 is none)");
  return g_string_free (s, FALSE);
}

/* " (0 to 10)"; nothing for what has no range. */
static char *
range_of (GParamSpec *spec)
{
  if (G_IS_PARAM_SPEC_ENUM (spec) || G_IS_PARAM_SPEC_FLAGS (spec))
    return names_of (spec);
  if (G_IS_PARAM_SPEC_BOOLEAN (spec))
    return g_strdup (" (true or false)");
  if (G_IS_PARAM_SPEC_INT (spec))
    return g_strdup_printf (" (%d to %d)", G_PARAM_SPEC_INT (spec)->minimum,
        G_PARAM_SPEC_INT (spec)->maximum);
  if (G_IS_PARAM_SPEC_UINT (spec))
    return g_strdup_printf (" (%u to %u)", G_PARAM_SPEC_UINT (spec)->minimum,
        G_PARAM_SPEC_UINT (spec)->maximum);
  if (G_IS_PARAM_SPEC_INT64 (spec))
    return g_strdup_printf (" (%" G_GINT64_FORMAT " to %" G_GINT64_FORMAT ")",
        G_PARAM_SPEC_INT64 (spec)->minimum, G_PARAM_SPEC_INT64 (spec)->maximum);
  if (G_IS_PARAM_SPEC_UINT64 (spec))
    return g_strdup_printf (" (%" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ")",
        G_PARAM_SPEC_UINT64 (spec)->minimum, G_PARAM_SPEC_UINT64 (spec)->maximum);
  if (G_IS_PARAM_SPEC_FLOAT (spec))
    return g_strdup_printf (" (%g to %g)", (double)G_PARAM_SPEC_FLOAT (spec)->minimum,
        (double)G_PARAM_SPEC_FLOAT (spec)->maximum);
  if (G_IS_PARAM_SPEC_DOUBLE (spec))
    return g_strdup_printf (" (%g to %g)", G_PARAM_SPEC_DOUBLE (spec)->minimum,
        G_PARAM_SPEC_DOUBLE (spec)->maximum);
  return g_strdup ("");
}

static gboolean
set_property (GstElement *element, GParamSpec *spec, const char *text, GError **error)
{
  g_autofree char *range = range_of (spec);
  GValue value = G_VALUE_INIT;
  gboolean ok;

  if ((spec->flags & G_PARAM_WRITABLE) == 0) {
    g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
        "Property '%s' of '%s' can only be read.", spec->name, GST_OBJECT_NAME (element));
    return FALSE;
  }
  g_value_init (&value, spec->value_type);
  if (spec->value_type == G_TYPE_STRING) {
    g_value_set_string (&value, text);
    ok = TRUE;
  } else {
    /* GStreamer takes nothing for 0, which is mostly a value by itself. */
    ok = text[0] != '\0' && gst_value_deserialize_with_pspec (&value, text, spec);
  }
  /* g_param_value_validate() changes what is out of range: say so instead. */
  if (ok && g_param_value_validate (spec, &value) && spec->value_type != G_TYPE_STRING)
    ok = FALSE;
  if (ok)
    g_object_set_property (G_OBJECT (element), spec->name, &value);
  else
    g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
        "'%s' is no value for '%s.%s'%s; gst-inspect-1.0 %s lists what it takes.", text,
        GST_OBJECT_NAME (element), spec->name, range,
        GST_OBJECT_NAME (gst_element_get_factory (element)));
  g_value_unset (&value);
  return ok;
}

static GList *
elements_of (GstBin *pipeline)
{
  GstIterator *it = gst_bin_iterate_recurse (pipeline);
  GValue item = G_VALUE_INIT;
  GList *list = NULL;

  while (gst_iterator_next (it, &item) == GST_ITERATOR_OK) {
    list = g_list_prepend (list, g_value_dup_object (&item));
    g_value_reset (&item);
  }
  g_value_unset (&item);
  gst_iterator_free (it);
  return list;
}

static GParamSpec *
find_property (gpointer element, const char *name)
{
  return g_object_class_find_property (G_OBJECT_GET_CLASS (element), name);
}

/* Whether all elements that have the property agree on its value. `who` collects their
 * names. */
static gboolean
values_agree (GList *elements, const char *name, GString *who)
{
  g_autofree char *first = NULL;
  gboolean agree = TRUE;

  for (GList *l = elements; l != NULL; l = l->next) {
    GParamSpec *spec = find_property (l->data, name);
    g_autofree char *text = NULL;
    GValue value = G_VALUE_INIT;

    if (spec == NULL || (spec->flags & G_PARAM_READABLE) == 0)
      continue;
    g_value_init (&value, spec->value_type);
    g_object_get_property (G_OBJECT (l->data), name, &value);
    text = g_strdup_value_contents (&value);
    g_value_unset (&value);
    g_string_append_printf (
        who, "%s%s.%s", who->len ? ", " : "", GST_OBJECT_NAME (l->data), name);
    if (first == NULL)
      first = g_steal_pointer (&text);
    else if (strcmp (first, text) != 0)
      agree = FALSE;
  }
  return agree;
}

static gboolean
override_all (GList *elements, const char *name, const char *value, GError **error)
{
  g_autoptr (GString) who = g_string_new (NULL);
  guint n_set = 0;

  if (!values_agree (elements, name, who)) {
    g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
        "'%s' means different things in this pipeline; name one of %s.", name, who->str);
    return FALSE;
  }
  for (GList *l = elements; l != NULL; l = l->next) {
    GParamSpec *spec = find_property (l->data, name);

    if (spec == NULL)
      continue;
    if (!set_property (l->data, spec, value, error))
      return FALSE;
    n_set++;
  }
  if (n_set == 0)
    g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
        "No element of this pipeline has a property '%s'.", name);
  return n_set > 0;
}

gboolean
gst_flux_override (GstBin *pipeline, const char *word, GError **error)
{
  const char *equals = strchr (word, '=');
  g_autofree char *left = equals != NULL ? g_strndup (word, equals - word) : NULL;
  char *dot = left != NULL ? strchr (left, '.') : NULL;
  gboolean ok;

  if (left == NULL || left[0] == '\0') {
    g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
        "'%s' is not of the form property=value or element.property=value.", word);
    return FALSE;
  }
  if (dot == NULL) {
    GList *elements = elements_of (pipeline);

    ok = override_all (elements, left, equals + 1, error);
    g_list_free_full (elements, gst_object_unref);
  } else {
    g_autoptr (GstElement) element = NULL;
    GParamSpec *spec;

    *dot = '\0';
    element = gst_bin_get_by_name (pipeline, left);
    spec = element != NULL ? find_property (element, dot + 1) : NULL;
    ok = spec != NULL && set_property (element, spec, equals + 1, error);
    if (spec == NULL)
      g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
          element == NULL ? "No element of this pipeline is called '%s'."
                          : "Element '%s' has no property '%s'.",
          left, dot + 1);
  }
  return ok;
}
