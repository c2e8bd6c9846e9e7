/* tests/elements/test-presets.c: the presets that are installed load, and the settings
 * that editors show describe themselves. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "tests/elements/testgst.h"

static const gchar *const preset_elements[] = {"fluxsamplersrc", "fluxtrainsink"};

static gchar *
presets_folder (void)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "..", "elements", "presets", NULL);
}

static GKeyFile *
read_presets (GstElement *element)
{
  gchar *folder = presets_folder ();
  gchar *file = g_strdup_printf ("%s/%s.prs", folder, G_OBJECT_TYPE_NAME (element));
  GKeyFile *keys = g_key_file_new ();
  GError *error = NULL;

  g_key_file_load_from_file (keys, file, G_KEY_FILE_NONE, &error);
  g_assert_no_error (error);
  g_free (file);
  g_free (folder);
  return keys;
}

/* Every key is a property that can be set, and has the file's value afterwards. */
static void
check_preset (GstElement *element, GKeyFile *keys, const gchar *name)
{
  gchar **names = g_key_file_get_keys (keys, name, NULL, NULL);
  guint n = 0;

  g_assert_true (gst_preset_load_preset (GST_PRESET (element), name));
  for (guint i = 0; names[i] != NULL; i++) {
    GParamSpec *spec =
        g_object_class_find_property (G_OBJECT_GET_CLASS (element), names[i]);
    gchar *text = g_key_file_get_string (keys, name, names[i], NULL);
    GValue is = G_VALUE_INIT, wanted = G_VALUE_INIT;

    if (g_str_has_prefix (names[i], "_meta/")) {
      g_free (text);
      continue;
    }
    g_test_message ("%s: %s=%s", name, names[i], text);
    g_assert_nonnull (spec);
    g_value_init (&wanted, spec->value_type);
    g_assert_true (gst_value_deserialize (&wanted, text));
    g_value_init (&is, spec->value_type);
    g_object_get_property (G_OBJECT (element), names[i], &is);
    g_assert_cmpint (gst_value_compare (&is, &wanted), ==, GST_VALUE_EQUAL);
    g_assert_false (g_param_value_validate (spec, &wanted));
    g_value_unset (&is);
    g_value_unset (&wanted);
    g_free (text);
    n++;
  }
  g_assert_cmpuint (n, >, 0);
  g_strfreev (names);
}

static void
test_presets (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (preset_elements); i++) {
    GstElement *element = gst_element_factory_make (preset_elements[i], NULL);
    GKeyFile *keys = read_presets (element);
    gchar **names = gst_preset_get_preset_names (GST_PRESET (element));
    gchar **groups = g_key_file_get_groups (keys, NULL);

    g_assert_cmpuint (g_strv_length (names) + 1, ==, g_strv_length (groups));
    for (guint p = 0; names[p] != NULL; p++) {
      gchar *comment = NULL;

      check_preset (element, keys, names[p]);
      g_assert_true (
          gst_preset_get_meta (GST_PRESET (element), names[p], "comment", &comment));
      g_free (comment);
    }
    g_assert_false (gst_preset_load_preset (GST_PRESET (element), "no such preset"));
    g_strfreev (names);
    g_strfreev (groups);
    g_key_file_free (keys);
    gst_object_unref (element);
  }
}

/* ---- blurbs ---- */

static gboolean
number_range (GParamSpec *spec, gdouble *min, gdouble *max, gdouble *most)
{
#define RANGE(TYPE, Type, limit)                                                         \
  if (G_IS_PARAM_SPEC_##TYPE (spec)) {                                                   \
    *min = (gdouble)((GParamSpec##Type *)spec)->minimum;                                 \
    *max = (gdouble)((GParamSpec##Type *)spec)->maximum;                                 \
    *most = (gdouble)(limit);                                                            \
    return TRUE;                                                                         \
  }
  RANGE (INT, Int, G_MAXINT)
  RANGE (UINT, UInt, G_MAXUINT)
  RANGE (INT64, Int64, G_MAXINT64)
  RANGE (UINT64, UInt64, G_MAXINT64)
  RANGE (FLOAT, Float, G_MAXFLOAT)
  RANGE (DOUBLE, Double, G_MAXFLOAT)
#undef RANGE
  return FALSE;
}

/* What a blurb ends with after the unit: "0 to 16)", "0 or more)" or "any)". */
static gchar *
range_text (gdouble min, gdouble max, gdouble most)
{
  if (max < most)
    return g_strdup_printf ("%.15g to %.15g)", min, max);
  if (min <= -most)
    return g_strdup ("any)");
  return g_strdup_printf ("%.15g or more)", min);
}

/* "... (UNIT, RANGE)" with a unit of the list and the range of the property. */
static gboolean
blurb_has_unit_and_range (GParamSpec *spec)
{
  static const gchar *const units[] = {"a step", "bytes", "checkpoints", "colour",
      "cycles", "factor", "mean squared error", "MiB", "norm", "number", "passes",
      "pictures", "pixels", "probability", "samples", "scale", "seconds", "steps",
      "times", "tokens", "triples", "port", "milliseconds", "files", "blocks", NULL};
  gdouble min, max, most;
  const gchar *tail = strrchr (g_param_spec_get_blurb (spec), '(');
  gboolean ok = FALSE;

  if (!number_range (spec, &min, &max, &most))
    return TRUE;
  for (guint i = 0; tail != NULL && units[i] != NULL; i++) {
    gchar *range = range_text (min, max, most);
    gchar *wanted = g_strdup_printf ("(%s, %s", units[i], range);

    ok |= strcmp (tail, wanted) == 0;
    g_free (wanted);
    g_free (range);
  }
  if (!ok) {
    gchar *range = range_text (min, max, most);

    g_test_message ("the blurb of %s should end with (UNIT, %s", spec->name, range);
    g_free (range);
  }
  return ok;
}

static gboolean
enum_has_nicks (GParamSpec *spec)
{
  GEnumClass *klass;
  gboolean ok = TRUE;

  if (!G_IS_PARAM_SPEC_ENUM (spec))
    return TRUE;
  klass = G_PARAM_SPEC_ENUM (spec)->enum_class;
  for (guint i = 0; i < klass->n_values; i++) {
    const gchar *nick = klass->values[i].value_nick;

    ok &= nick[0] != 0 &&
          strspn (nick, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen (nick);
    ok &= klass->values[i].value_name[0] != 0;
  }
  return ok;
}

static void
test_blurbs (void)
{
  GList *list = gst_registry_get_feature_list_by_plugin (gst_registry_get (), "flux");
  guint n_checked = 0;

  g_assert_nonnull (list);
  for (GList *l = list; l != NULL; l = l->next) {
    GstElement *element;
    GParamSpec **specs;
    guint n;

    if (!GST_IS_ELEMENT_FACTORY (l->data))
      continue;
    element = gst_element_factory_create (l->data, NULL);
    specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (element), &n);
    for (guint i = 0; i < n; i++) {
      const gchar *blurb = g_param_spec_get_blurb (specs[i]);

      if (!g_str_has_prefix (g_type_name (specs[i]->owner_type), "GstFlux"))
        continue;
      n_checked++;
      if (blurb == NULL || strlen (blurb) < 4 || g_str_has_suffix (blurb, ".") ||
          !blurb_has_unit_and_range (specs[i]) || !enum_has_nicks (specs[i])) {
        g_test_message ("%s.%s: %s", GST_OBJECT_NAME (l->data), specs[i]->name, blurb);
        g_test_fail ();
      }
    }
    g_free (specs);
    gst_object_unref (element);
  }
  g_assert_cmpuint (n_checked, >, 50);
  gst_plugin_feature_list_free (list);
}

/* The check above can fail. */
static void
test_bad_blurbs (void)
{
  static const struct {
    const gchar *blurb;
    gboolean good;
  } cases[] = {{"Width (pixels, 1 to 16)", TRUE}, {"Width", FALSE},
      {"Width in pixels, 1 to 16", FALSE}, {"Width (pixels, 0 to 16)", FALSE},
      {"Width (1 to 16)", FALSE}, {"Width (apples, 1 to 16)", FALSE},
      {"Width (pixels, 1 or more)", FALSE}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    GParamSpec *spec = g_param_spec_ref_sink (
        g_param_spec_int ("width", "Width", cases[i].blurb, 1, 16, 1, G_PARAM_READABLE));

    g_assert_true (blurb_has_unit_and_range (spec) == cases[i].good);
    g_param_spec_unref (spec);
  }
}

int
main (int argc, char **argv)
{
  gchar *folder, *data;
  int status;

  g_test_init (&argc, &argv, NULL);
  folder = presets_folder ();
  data = test_folder ();
  g_setenv ("GST_PRESET_PATH", folder, TRUE);
  g_setenv ("XDG_DATA_HOME", data, TRUE); /* nobody's own presets */
  gst_init (&argc, &argv);
  g_test_add_func ("/presets/load", test_presets);
  g_test_add_func ("/presets/blurbs", test_blurbs);
  g_test_add_func ("/presets/blurbs/bad", test_bad_blurbs);
  status = g_test_run ();
  test_remove (data);
  g_free (folder);
  g_free (data);
  return status;
}
